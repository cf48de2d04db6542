# Sourced by the scripts beside it: goes to the project's root and makes .venv ready.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The one torch that the tests were written against.
TORCH=2.13.0

fail() {
  echo "error: $1" >&2
  exit 1
}

is_recent() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Prints the first Python that is recent enough.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if is_recent "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer among python3, python3.13, python3.12 and python3.11
  python3 is: $(python3 --version 2>/dev/null || echo missing)
  Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.13)."
}

# Makes .venv, unless there is one that works; finishes one whose making was cut off.
make_venv() {
  if [[ -e .venv ]] && .venv/bin/python -m pip --version >/dev/null 2>&1; then
    is_recent .venv/bin/python || fail "the Python of .venv is older than 3.11:
  $(.venv/bin/python --version). Remove the folder .venv, then run this again."
    return
  fi
  local python
  python="$(find_python)"
  # Debian ships Python without these two; asked first, so that no half-made .venv is left behind.
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"
  echo "Making .venv with $("$python" --version) ..."
  "$python" -m venv .venv
}

# install [EXTRA]: installs metatune into .venv, unless pyproject.toml is the one installed last.
install() {
  local extra="${1:-}" stamp=.venv/metatune.installed hash said
  hash="$(.venv/bin/python -c \
    'import hashlib; print(hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest())')"
  said="$(cat "$stamp" 2>/dev/null || true)"
  # What was installed with an extra serves without it too.
  if [[ "$said" == "$hash $extra" || (-z "$extra" && "$said" == "$hash "*) ]]; then
    return
  fi
  if [[ "$extra" == test ]] && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    # The tests need torch on the CPU only. Where pip's index offers builds for GPUs, configure it
    # to take the smaller one: PIP_INDEX_URL, or PIP_EXTRA_INDEX_URL with PyTorch's CPU index.
    echo "Installing torch $TORCH for the tests (some minutes) ..."
    .venv/bin/python -m pip install -q --disable-pip-version-check "torch==$TORCH"
  fi
  echo "Installing metatune${extra:+ with the extra $extra} into .venv (one to five minutes) ..."
  .venv/bin/python -m pip install -q --disable-pip-version-check -e ".${extra:+[$extra]}"
  echo "$hash $extra" >"$stamp"
}
