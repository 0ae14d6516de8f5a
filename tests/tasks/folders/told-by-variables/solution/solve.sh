#!/bin/sh
printf '%s %s%s\n' "$COLOUR" "$SHAPE" "$SUFFIX" > told
