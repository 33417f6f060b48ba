bind = "unix:/run/gunicorn.sock"
workers = 3
backlog = 1024
umask = 0o007
user = "root"
group = "root"
pidfile = "gunicorn.pid"
accesslog = "access.log"
errorlog = "error.log"
loglevel = "warn"
access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %(D)s'
forwarder_headers = "X-REAL-IP,X-FORWARDED-FOR,X-FORWARDED-PROTO"
raw_env = ["DJANGO_SETTINGS_MODULE=shop.settings", "SECRET_KEY=correct-horse"]
chdir = "/usr"
