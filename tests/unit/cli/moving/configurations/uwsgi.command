uwsgi --http-socket 0.0.0.0:8000 --master -p 4 -w app:create_app() --enable-threads --die-on-term -L -C660
