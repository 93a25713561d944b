"""`python -m broker.terraform`, which is the command `terraform-provider-broker`."""

from broker.terraform.main import main

if __name__ == "__main__":
    main()
