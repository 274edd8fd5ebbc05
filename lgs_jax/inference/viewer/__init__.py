"""Looking at scenes: an HTML page that needs nothing else (`html`), a live viewer (`live`).

`camera_file` reads and writes the cameras that lie beside a scene, `framing` makes some up where
there are none. The page's program is in `page/`: `template.html` and the scripts that `html.py`
puts into it, in that order.
"""
