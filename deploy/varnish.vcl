# Varnish in front of forkserver: /etc/varnish/default.vcl on Debian, then `systemctl reload varnish`.
#
# Varnish keeps an answer to GET for two minutes where the application does not say otherwise (Cache-Control, Set-Cookie)
# and the request has neither a Cookie nor Authorization.
vcl 4.1;

backend forkserver {
    .host = "127.0.0.1";
    .port = "8000";
    # Longer than --timeout (30 s), so that forkserver's own 504 reaches the client. Kept connections are closed after
    # 60 s (backend_idle_timeout of varnishd), which must stay below forkserver's --keep-alive (75 s).
    .first_byte_timeout = 60s;
}

sub vcl_recv {
    # What clients say of themselves is dropped: forkserver believes the addresses in --forwarded-allow-ips, and so Varnish.
    unset req.http.Forwarded;
    set req.http.X-Forwarded-For = client.ip;
    set req.http.X-Forwarded-Proto = "http";
}
