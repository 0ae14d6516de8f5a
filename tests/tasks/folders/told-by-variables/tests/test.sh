#!/bin/bash
if [ "$PWD" = /srv/work ] && [ "$(cat told)" = "$COLOUR $SHAPE$LAST" ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
