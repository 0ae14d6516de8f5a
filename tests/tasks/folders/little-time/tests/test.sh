#!/bin/bash
[ -e /app/hang ] && sleep 1000
if [ -e /app/quick ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
