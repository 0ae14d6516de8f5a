touch /app/quick
