from tinyaction.cli.embed import main

if __name__ == "__main__":
    raise SystemExit(main())
