import os


def _number(name, default):
    text = os.environ.get(name)
    return int(text) if text else default


def on_starting(server):
    server.log.info("starts")


def worker_exit(server, worker):
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


class Logger:
    pass


bind = f":{_number('PORT', 8081)}"
wsgi_app = "portal.wsgi:application"
workers = _number("WEB_CONCURRENCY", 2)
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
timeout = 0
preload_app = True
control_socket_disable = True
max_requests = 20_000
max_requests_jitter = max_requests // 10
accesslog = None
logger_class = Logger
logconfig_dict = {"version": 1, "disable_existing_loggers": False}
statsd_host = "127.0.0.1:8125"
statsd_prefix = "portal"
print("this file prints")
