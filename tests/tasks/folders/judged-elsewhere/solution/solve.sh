mkdir -p /app/data
touch /app/data/a /app/data/b /app/data/c.tmp
echo 3 > /app/report.txt
