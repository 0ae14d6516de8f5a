#!/bin/bash
. /tests/common.sh
is /app/first.txt one
