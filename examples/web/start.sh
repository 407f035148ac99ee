# Answers every request with a line of who answered.
set -eu
mkdir -p /www/cgi-bin
cat > /www/cgi-bin/index.cgi <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
echo "$GREETING from $(cat /etc/node), container $(hostname)"
CGI
chmod 755 /www/cgi-bin/index.cgi
echo "answering on port 80"
exec httpd -f -p 80 -h /www
