# The broker on a cluster whose OpenID Connect issuer vouches for it, and one role for tasks: a bucket
# that agents may read, each its own folder.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "issuer" {
  description = "The cluster's OpenID Connect issuer."
  type        = string
}

variable "subject" {
  description = "The broker's subject there."
  type        = string
  default     = "system:serviceaccount:agents:broker"
}

variable "bucket" {
  description = "Name of the bucket with the artifacts."
  type        = string
}

variable "region" {
  description = "Region of the broker's calls to STS."
  type        = string
  default     = "eu-west-1"
}

provider "aws" {
  region = var.region
}

data "aws_caller_identity" "here" {}

locals {
  task_role = "artifacts"
}

module "broker" {
  source = "../../modules/aws-broker"

  # By name, for each role names the other.
  task_role_arns = ["arn:aws:iam::${data.aws_caller_identity.here.account_id}:role/${local.task_role}"]

  federation = {
    issuer  = var.issuer
    subject = var.subject
  }
}

module "artifacts" {
  source = "../../modules/aws-task-role"

  name         = local.task_role
  broker_arn   = module.broker.role_arn
  credentials  = module.broker.credentials
  region       = var.region
  session_tags = ["agent"]

  ceiling = [
    {
      actions   = ["s3:GetObject"]
      resources = ["arn:aws:s3:::${var.bucket}/*"]
    },
  ]
}

output "policy_yaml" {
  description = "What to put into the broker's policies."
  value       = module.artifacts.policy_yaml
}
