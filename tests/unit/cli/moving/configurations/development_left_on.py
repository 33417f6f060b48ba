import ssl

bind = ["0.0.0.0:5000", "[::1]:5000"]
workers = 1
timeout = 480
graceful_timeout = 60
keepalive = 60
preload_app = True
reload = True
reuse_port = True
certfile = "server.crt"
keyfile = "server.key"
ssl_version = ssl.PROTOCOL_TLS_SERVER
cert_reqs = ssl.CERT_NONE
access_log_format = '%({x-forwarded-for}i)s %(t)s "%(r)s" %(s)s'
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
