from tinyaction.cli.join import main

if __name__ == "__main__":
    raise SystemExit(main())
