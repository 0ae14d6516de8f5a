cat note.txt > /app/seen.txt
