from tinyaction.cli.audit import main

if __name__ == "__main__":
    raise SystemExit(main())
