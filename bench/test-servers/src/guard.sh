# Ends a server when the test process that holds the other end of standard input ends, however that ends.
# $1 is the server's directory; every process of the server works in it or below it, and no other process does.
trap '' HUP INT TERM
while read -r _; do :; done

# PostgreSQL's postmaster holds a piece of shared memory that outlives it; its number stands in its lock file.
memory=$(sed -n '7s/.* //p' "$1/data/postmaster.pid" 2>/dev/null)
tries=0
while
  left=$(find /proc/[0-9]*/cwd -maxdepth 0 \( -lname "$1" -o -lname "$1/*" \) 2>/dev/null | cut -d/ -f3)
  [ -n "$left" ] && [ "$tries" -lt 600 ]
do
  kill -9 $left 2>/dev/null
  tries=$((tries + 1))
  sleep 0.05
done
[ -z "$memory" ] || ipcrm -m "$memory" 2>/dev/null
rm -rf "$1"
