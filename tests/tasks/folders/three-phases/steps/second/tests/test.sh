#!/bin/bash
. /tests/common.sh
is /app/second.txt two
touch /tests/left-by-the-second
