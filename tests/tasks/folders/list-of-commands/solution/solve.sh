#!/bin/bash
set -euo pipefail

# go to the folder of the lists
cd "/app/in box"
# count the fruit of all lists
cat *.txt | sort | uniq -c |
  sort -k1,1nr -k2 | sed 's/^ *//' > /app/counts.txt
cd /app
# make the folder and move the counts there
mkdir -p out && mv counts.txt out/
