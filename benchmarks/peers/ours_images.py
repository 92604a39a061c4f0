"""The rendered project on pictures. Its arguments are overrides."""

from .ours import begin
from .turns import TURNS

if __name__ == "__main__":
    begin(data=f"+data.size={TURNS.epoch * TURNS.batch}")
