waitress-serve --listen=*:5000 --threads=12 --backlog=2048 --url-scheme=https --no-ipv6 --connection-limit 500 wsgi:app
