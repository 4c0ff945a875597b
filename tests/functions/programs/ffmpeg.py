"""ffmpeg with four threads."""

from common import run


def start():
    pass


def handle(event):
    source = ["-f", "lavfi", "-i", "testsrc=duration=2:size=640x360:rate=25"]
    run("ffmpeg", "-nostdin", "-loglevel", "error", *source, "-threads", "4", "-c:v", "mpeg4", "-f", "null", "-")
    return {}
