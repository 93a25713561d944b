locals {
  claims = {
    for name, one in var.agents : name => merge(
      { repository_id = one.repository_id },
      one.repository_owner_id == null ? {} : { repository_owner_id = one.repository_owner_id },
      length(one.refs) == 0 ? {} : { ref = one.refs },
      length(one.environments) == 0 ? {} : { environment = one.environments },
      length(one.workflow_refs) == 0 ? {} : { job_workflow_ref = one.workflow_refs },
    )
  }
}
