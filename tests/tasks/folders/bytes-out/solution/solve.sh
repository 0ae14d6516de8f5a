#!/bin/bash
cp "$(dirname "$0")/gold.bin" /app/out.bin
