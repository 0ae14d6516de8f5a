#!/bin/bash
if [ "$PWD" = /judge ] && [ "$(tail -n1 answer)" = "$(cat /app/report.txt)" ] && [ -e /app/data/b ] && [ ! -e /app/data/c.tmp ]
then echo 1; else echo 0; fi > /logs/verifier/reward.txt
