"""What a run says and shows."""
