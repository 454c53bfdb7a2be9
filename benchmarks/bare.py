"""The yardstick: a Flask application that reads a JSON body and answers with one, and does nothing else."""

from flask import Flask, Response, jsonify, request

app = Flask(__name__)


@app.post("/api/users")
def answer() -> tuple[Response, int]:
    body = request.get_json()
    return jsonify(id="x" * 26, email=body["email"], status="registered", delivery="sent"), 201
