# A database with one table, of visits: a line of a file for each. It is asked by HTTP, with the password.
set -eu
mkdir -p /srv/cgi-bin
cat > /srv/cgi-bin/visit <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
date >> /data/visits
wc -l < /data/visits
CGI
chmod 755 /srv/cgi-bin/visit
echo "/:web:$(cat /run/secrets/db-password)" > /etc/httpd.conf
exec httpd -f -p 5000 -h /srv -c /etc/httpd.conf
