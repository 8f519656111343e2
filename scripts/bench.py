from tinyaction.cli.bench import main

if __name__ == "__main__":
    raise SystemExit(main())
