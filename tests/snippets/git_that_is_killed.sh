#!/bin/bash
echo "${*//$'\n'/ }" >> "$CALLS"
if [ "$(wc -l < "$CALLS")" -eq "$KILL_AT" ]; then
  if [ "$KILL_HOW" = after ]; then "$REAL_GIT" "$@" > /dev/null; fi
  if [ "$KILL_HOW" = within ]; then # of the fast-forward: as git leaves files, half of them written
    touch .git/index.lock
    new="${@: -1}"
    mkdir -p configs/scheduler digits/engine/folder
    printf 'the: temp' > configs/scheduler/new.yaml
    "$REAL_GIT" show "$new:digits/engine/loop.py" > digits/engine/loop.py
    rm digits/engine/gone.py configs/optimizer/adamw.yaml
  fi
  kill -KILL $PPID
  exit 1
fi
exec "$REAL_GIT" "$@"
