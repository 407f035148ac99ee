# A page that says what the database says.
set -eu
mkdir -p /www/cgi-bin
cat > /www/cgi-bin/index.cgi <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
me=$(printf 'web:%s' "$(cat /run/secrets/db-password)" | base64)
if count=$(timeout 3 wget -q -O - --header "Authorization: Basic $me" http://db:5000/cgi-bin/visit); then
  echo "You are visitor $count"
else
  echo "The database does not answer"
fi
CGI
chmod 755 /www/cgi-bin/index.cgi
echo "answering on port 80"
exec httpd -f -p 80 -h /www
