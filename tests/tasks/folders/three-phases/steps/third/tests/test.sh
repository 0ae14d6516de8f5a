#!/bin/bash
. /tests/common.sh
[ "$(cat /app/seen.txt)" = "the second phase" ] && [ ! -e /tests/left-by-the-second ] && is /app/third.txt three
