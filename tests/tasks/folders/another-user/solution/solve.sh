id -un > name.txt
