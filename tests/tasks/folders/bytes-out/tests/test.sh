#!/bin/bash
found=$(sha256sum /app/out.bin | cut -d' ' -f1)
if [ "$found" = "$WANTED" ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
