#!/bin/bash
touch /app/draft /app/final
