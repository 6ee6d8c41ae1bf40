"""`python -m slackbot` is the same as `shopmate`."""

from slackbot.cli import main

if __name__ == "__main__":
    main()
