from tinyaction.cli import main

if __name__ == "__main__":  # worker processes that are spawned import this file
    raise SystemExit(main())
