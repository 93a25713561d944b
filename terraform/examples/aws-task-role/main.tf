# One bucket that agents may read, each its own folder.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "broker_arn" {
  description = "ARN of the broker's own role or user."
  type        = string
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

module "artifacts" {
  source = "../../modules/aws-task-role"

  name         = "artifacts"
  broker_arn   = var.broker_arn
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
