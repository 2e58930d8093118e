#!/bin/sh
# render FROM TO: turns each FROM/*.md into TO/*.html, and writes TO/SHA256SUMS. Headings, lists, code and paragraphs are all it knows.
set -eu

from=$1
to=$2
mkdir -p "$to"

for page in "$from"/*.md; do
    echo "rendering $(basename "$page")"
    awk '
        { gsub(/&/, "\\&amp;"); gsub(/</, "\\&lt;") }
        { while (match($0, /`[^`]*`/)) $0 = substr($0, 1, RSTART - 1) "<code>" substr($0, RSTART + 1, RLENGTH - 2) "</code>" substr($0, RSTART + RLENGTH) }
        /^# / { title = substr($0, 3); body = body "<h1>" title "</h1>\n"; next }
        /^- / { if (!list) body = body "<ul>\n"; list = 1; body = body "<li>" substr($0, 3) "</li>\n"; next }
        { if (list) body = body "</ul>\n"; list = 0 }
        NF { body = body "<p>" $0 "</p>\n" }
        END {
            if (list) body = body "</ul>\n"
            print "<!DOCTYPE html>\n<html>\n<head>\n<title>" title "</title>\n</head>\n<body>\n" body "</body>\n</html>"
        }' "$page" >"$to/$(basename "$page" .md).html"
done

cd "$to"
sha256sum ./*.html >SHA256SUMS
