"""The application: flask --app warehouse run."""
import os

import flask
from sqlalchemy.exc import IntegrityError

import models
from databases import Databases, Unavailable
from topology import Follower

app = flask.Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]  # signs the cookie, which holds what its owner has written last
follower = Follower(os.environ["TTORCH_MEMBERS"].split(","))
databases = Databases(follower, os.environ["DATABASE_URL"])


def write(work):
    _, flask.session["lsn"] = databases.write(work)
    return "", 204


def read(work):
    result, flask.g.server = databases.read(work, flask.session.get("lsn"))
    return result


@app.put("/bags/<uuid:bag_id>")
def put_bag(bag_id):
    return write(models.add(models.Bag(id=bag_id, label=flask.request.json["label"])))


@app.put("/bags/<uuid:bag_id>/scans/<uuid:scan_id>")
def put_scan(bag_id, scan_id):
    return write(models.add(models.Scan(id=scan_id, bag_id=bag_id, place=flask.request.json["place"])))


@app.get("/bags/<uuid:bag_id>")
def get_bag(bag_id):
    bag = read(models.bag(bag_id))
    if bag is None:
        return {"error": "no such bag"}, 404
    scans = [{"place": scan.place, "time": scan.time.isoformat()} for scan in bag.scans]
    return {"label": bag.label, "scans": scans}


@app.after_request
def say_who(response):
    """For the curious, and for tests."""
    response.headers["X-Served-By"] = flask.g.get("server", "")
    return response


@app.errorhandler(Unavailable)
def unavailable(_error):
    return {"error": "no primary at this moment"}, 503, {"Retry-After": "1"}


@app.errorhandler(IntegrityError)
def refused(_error):
    return {"error": "it refers to what is not there"}, 409


@app.cli.command("create-tables")
def create_tables():
    """Makes the tables that are not there."""
    databases.write(lambda session: models.Base.metadata.create_all(session.connection()))
