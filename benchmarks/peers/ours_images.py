"""The rendered project on pictures, with the overrides that are its arguments."""

from .ours import begin
from .turns import TURNS

if __name__ == "__main__":
    begin(data=f"+data.size={TURNS.epoch * TURNS.batch}")
