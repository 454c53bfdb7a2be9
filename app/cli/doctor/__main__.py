"""`python -m app.cli.doctor`: the same as `flask --app wsgi doctor`."""

from app.cli.doctor import doctor

if __name__ == "__main__":
    doctor(prog_name="python -m app.cli.doctor")
