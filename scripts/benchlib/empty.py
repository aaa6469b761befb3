"""An app that does nothing: what Flask and gunicorn cost alone."""

from flask import Flask, Response

ANSWER = b'{"choices": [], "text": "' + b"x" * 970 + b'"}'

app = Flask(__name__)


@app.post("/v1/chat/completions")
def answer() -> Response:
    return Response(ANSWER, mimetype="application/json")
