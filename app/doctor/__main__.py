"""`python -m app.doctor`: the same as `flask --app wsgi doctor`."""

from app.commands.doctor import doctor

if __name__ == "__main__":
    doctor(prog_name="python -m app.doctor")
