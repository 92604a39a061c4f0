"""What reads or tries a project without being part of training; the core never imports it."""
