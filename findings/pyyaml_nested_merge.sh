#!/usr/bin/env bash
# PyYAML 6.0.4 resolves merge keys otherwise than 6.0.3 where a merged mapping itself merges another
# and overrides a key of it, and the key has a single character: keys are told apart by the identity
# of their Python strings, and CPython keeps one string for each character. With longer keys the same
# document is right. YAML's merge key says that a mapping's own keys win.
#
#   seen (CPython 3.11): 6.0.3 -> T 900, steps 900
#                        6.0.4 -> T 100, steps 900
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cat >"$place/ask.py" <<'P'
import yaml

text = """
base: &base {NAME: 100, warmup: 10}
tuned: &tuned
  <<: *base
  NAME: 900
production:
  <<: *tuned
"""
for name in ("T", "steps"):
    held = yaml.safe_load(text.replace("NAME", name))
    assert held["tuned"] == {name: 900, "warmup": 10}
    print(name, held["production"][name], end=" ")
P
for case in "6.0.3:T 900 steps 900 " "6.0.4:T 100 steps 900 "; do
  version=${case%%:*}
  python3 -m pip install -q --disable-pip-version-check --target "$place/$version" "pyyaml==$version"
  seen=$(PYTHONPATH="$place/$version" python3 "$place/ask.py")
  echo "PyYAML $version: in production $seen"
  [[ "$seen" == "${case#*:}" ]] || { echo "this has changed: it was ${case#*:}" >&2; exit 1; }
done
