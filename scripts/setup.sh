# Sourced by the scripts beside it: goes to the project's root and makes .venv ready.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Packages are installed uncompiled (pip takes a minute for 19,000 files, of which few are imported),
# and Python keeps what it compiles, or each process that tests start would compile all of it anew.
unset PYTHONDONTWRITEBYTECODE

# The one torch that the tests were written against. Builds for the CPU alone are marked +cpu on
# Linux, where the others bring gigabytes for GPUs; on macOS there are no others.
TORCH=2.13.0
[[ "$(uname -s)" == Darwin ]] || TORCH+=+cpu
TORCH_INDEX=https://download.pytorch.org/whl/cpu

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
  rm -f .venv/metatune.installed # said of another Python, perhaps
  "$python" -m venv .venv
}

# Prints "version path" if a Python can be used: a release, recent enough, able to make environments.
ask() {
  "$1" -c '
import sys, sysconfig, ensurepip, venv
if sys.version_info >= (3, 11) and sys.version_info.releaselevel == "final":
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        print("%d.%d.%d" % sys.version_info[:3], sys.executable)' 2>/dev/null || true
}

# Every Python of PATH and of pyenv, by minor version, oldest first.
pythons() {
  local candidate root
  root="$(pyenv root 2>/dev/null || echo "${PYENV_ROOT:-$HOME/.pyenv}")"
  for candidate in $(compgen -c python3. | grep -xE 'python3\.[0-9]+' | sort -u) \
    "$root"/versions/*/bin/python; do
    ask "$candidate"
  done | sort -V
}

# Prints the newest Python that isn't .venv's, if there is one.
other_python() {
  local own
  own="$(.venv/bin/python -c 'import sys; print("%d.%d." % sys.version_info[:2])')"
  pythons | { grep -v "^${own//./\\.}" || true; } | tail -n 1 | cut -d ' ' -f 2-
}

# installed SITE: how many packages the folder SITE has.
installed() {
  find "$1" -maxdepth 1 -name '*.dist-info' | wc -l
}

# watch LOG SITE: says each second on a terminal, in a line that is written over, and each ten seconds
# elsewhere how far the pip is that writes LOG and installs into SITE. Ends with the script.
watch() {
  local log="$1" site="$2" began=$SECONDS next=10 before what
  before=$(installed "$site")
  while sleep 1 && kill -0 $$ 2>/dev/null; do
    if grep -q '^Installing collected packages: ' "$log"; then
      what="installing, $(($(installed "$site") - before)) of"
      what+=" $(($(sed -n 's/^Installing collected packages: //p' "$log" | wc -w))) packages"
    else
      what="package $(grep -cE '^(Collecting|Processing) ' "$log" || true):"
      what+=" $(sed -nE 's/^ *((Collect|Download|Process|Build|Gett|Install|Prepar)ing )/\1/p' "$log" |
        tail -n 1)"
    fi
    what="  $((SECONDS - began)) s: $what"
    if [[ -t 1 ]]; then
      printf '\r\033[K%s\r' "${what:0:$(($(tput cols 2>/dev/null || echo 80) - 1))}"
    elif ((SECONDS - began >= next)); then
      echo "$what"
      next=$((SECONDS - began + 10))
    fi
  done
}

# pip_install PYTHON ARGUMENTS...: installs, and says how far it is; pip's own words go to a file.
pip_install() {
  local python="$1" prefix site watcher failed=0
  shift
  prefix="$("$python" -c 'import sys; print(sys.prefix)')"
  site="$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  : >"$prefix/pip.log"
  watch "$prefix/pip.log" "$site" &
  watcher=$!
  "$python" -m pip install --disable-pip-version-check --no-compile --progress-bar off "$@" \
    >>"$prefix/pip.log" || failed=$?
  kill "$watcher" 2>/dev/null || true
  wait "$watcher" 2>/dev/null || true
  [[ ! -t 1 ]] || printf '\r\033[K'
  if ((failed)); then
    tail -n 20 "$prefix/pip.log" >&2
    fail "pip ended with exit code $failed; its last words are above, all others in $prefix/pip.log"
  fi
}

# Prints the requirement for the torch that .venv has, or that pip finds for the CPU alone, if any.
find_torch() {
  local version
  if version="$(.venv/bin/python -c \
    'from importlib.metadata import version; print(version("torch"))' 2>/dev/null)"; then
    echo "torch==$version"
  elif .venv/bin/python -m pip install -q --dry-run --no-deps "torch==$TORCH" >/dev/null 2>&1; then
    echo "torch==$TORCH"
  fi
}

# install [EXTRA]: installs metatune into .venv, unless pyproject.toml is the one installed last.
install() {
  local extra="${1:-}" stamp=.venv/metatune.installed hash said torch
  hash="$(.venv/bin/python -c \
    'import hashlib; print(hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest())')"
  said="$(cat "$stamp" 2>/dev/null || true)"
  # What was installed with an extra serves without it too.
  if [[ "$said" == "$hash $extra" || (-z "$extra" && "$said" == "$hash "*) ]]; then
    return
  fi
  rm -f "$stamp" # what is cut off from here on is begun again
  set -- -e ".${extra:+[$extra]}"
  if [[ "$extra" == test ]]; then
    torch="$(find_torch)"
    if [[ -n "$torch" ]]; then
      set -- -e ".[test,test-torch]" "$torch"
    else
      echo "pip finds no torch==$TORCH here, so the tests that need torch will be skipped. To add it:
  .venv/bin/python -m pip install --extra-index-url $TORCH_INDEX 'torch==$TORCH' -e '.[test-torch]'"
    fi
  fi
  echo "Installing metatune${extra:+ with the extra $extra} into .venv (one to five minutes) ..."
  pip_install .venv/bin/python "$@"
  echo "$hash $extra" >"$stamp"
}

# Makes sure of a Chromium, which the tests of the report's page need and no package of pip brings:
# where there is none, of Debian, which has one, to root. Elsewhere those tests are skipped, counted.
install_chromium() {
  [[ -z "${METATUNE_CHROMIUM:-}" ]] || return 0
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null && return
  done
  if [[ "$(id -u)" == 0 ]] && grep -qs '^ID=debian' /etc/os-release; then
    echo "Installing Chromium ..."
    if apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends chromium >/dev/null; then
      return
    fi
  fi
  echo "No Chromium here: the tests of the report's page are skipped. METATUNE_CHROMIUM may name one."
}
