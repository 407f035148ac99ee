# Tells Prometheus of the node whose /proc is at /host/proc.
set -eu
mkdir -p /www/cgi-bin
cat > /www/cgi-bin/index.cgi <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain; version=0.0.4\r\n\r\n'
read -r load1 _ < /host/proc/loadavg
read -r uptime _ < /host/proc/uptime
echo "node_load1 $load1"
echo "node_uptime_seconds $uptime"
awk '/^Mem(Total|Available):/ { sub(":", "", $1); printf "node_memory_%s_bytes %.0f\n", $1, $2 * 1024 }' /host/proc/meminfo
CGI
chmod 755 /www/cgi-bin/index.cgi
echo "telling on port 9101"
exec httpd -f -p 9101 -h /www
