#!/usr/bin/env bash
# Builds and runs examples/hello from nothing: makes a Debian base image, serves it from a registry on loopback, builds twice, runs the image,
# changes one file and builds again. Everything lives in a temporary directory, but for the base image, which the user's cache keeps.
# `make demo` installs what this needs first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
PATH=$root/.venv/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
work=$(mktemp -d "${TMPDIR:-/tmp}/layerwright-demo.XXXXXX")
registry_pid=

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi
title() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() {
    printf '%s$ %s%s\n' "$bold" "$*" "$plain"
    "$@"
}
fail() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}

clean_up() {
    local code=$?
    if [ -n "$registry_pid" ]; then
        kill "$registry_pid" 2>/dev/null || true
        wait "$registry_pid" 2>/dev/null || true
    fi
    cd /
    rm -rf --one-file-system "$work"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# The registry picks a free port itself and tells it in its log.
start_registry() {
    mkdir "$work/registry"
    cat >"$work/registry.yml" <<YAML
version: 0.1
log: {level: info}
storage:
  filesystem: {rootdirectory: $work/registry}
http: {addr: "127.0.0.1:0"}
YAML
    OTEL_TRACES_EXPORTER=none docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    registry_pid=$!
    local tries address
    for tries in $(seq 100); do
        address=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$work/registry.log" | head -n 1)
        [ -z "$address" ] || break
        kill -0 "$registry_pid" 2>/dev/null || break
        sleep 0.1
    done
    [ -n "$address" ] || fail "the registry did not start: $(tail -n 3 "$work/registry.log")"
    registry=$address
}

commit() {
    git -C "$work/hello" add --all
    git -C "$work/hello" -c user.name=demo -c user.email=demo@localhost -c commit.gpgsign=false commit --quiet --message "$1"
}

title 'A base image from Debian packages, and a registry on loopback that serves it'
base=$(python tools/base_image.py debian)
start_registry
skopeo --insecure-policy copy --quiet --dest-tls-verify=false "oci:$base:latest" "docker://$registry/base/debian:12"
echo "base image: $registry/base/debian:12"

title 'A project: examples/hello as a git repository'
cp -R examples/hello "$work/hello"
git -c init.defaultBranch=main init --quiet "$work/hello"
sed -i "s|from: debian:12-slim|from: $registry/base/debian:12|" "$work/hello/werf.yaml"
commit 'A small site'
export LAYERWRIGHT_HOME=$work/home
unset "${!WERF_@}" LAYERWRIGHT_REPO LAYERWRIGHT_DIR LAYERWRIGHT_CONFIG # what the caller has set for a project of his own
cd "$work/hello"
show git log --oneline
show layerwright config graph

title 'First build: everything is new'
show layerwright build
first=$(layerwright stage image app)

title 'Second build of the same commit: everything is there'
show layerwright build --save-build-report --build-report-path "$work/report.json"
second=$(layerwright stage image app)
[ "$first" = "$second" ] || fail "the second build gave another image: $second, not $first"
python - "$work/report.json" <<'PY' || fail 'the second build built something'
import json, sys
images = json.load(open(sys.argv[1]))["Images"].values()
sys.exit(any(image["Rebuilt"] for image in images))
PY

title 'The image at work'
show layerwright run -q app
show layerwright run -q app -- show index
show layerwright run -q app -- check

title 'One source file changed: no command runs again, one small layer is new'
sed -i 's/pages are as they were built/pages are just as they were built/' app/bin/site
commit 'A better word'
show layerwright build
show layerwright run -q app -- check

title 'Done. Nothing is left behind but the base image in the cache.'
