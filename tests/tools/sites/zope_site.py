"""Zope, whose ZODB is a file, as its make_wsgi_app makes it."""

from pathlib import Path

from Zope2.Startup.run import make_wsgi_app

HERE = Path.cwd()
CONFIGURATION = f"""
instancehome {HERE}
<zodb_db main>
  <filestorage>
    path {HERE}/Data.fs
  </filestorage>
  mount-point /
</zodb_db>
"""
(HERE / "zope.conf").write_text(CONFIGURATION)
application = make_wsgi_app({}, str(HERE / "zope.conf"))
